"""The words of the report that an engineer may not know, each in one plain sentence; and the order of the pictures."""

METHODS = {
    "decompx": "shares the model's own output out over the tokens, following every layer; the shares and the part "
    "that belongs to no token add up to the logit",
    "integrated_decompx": "averages decompx over inputs from empty to whole; adds up to the logit",
    "deeplift_mask": "compares the text with a text of mask tokens, layer by layer; adds up to the difference",
    "deeplift": "compares the text with an empty input, layer by layer; adds up to the difference",
    "gradient_x_input": "multiplies how steeply the output reacts at each token by the token's vector; does not add up",
    "integrated_gradients": "averages gradients over inputs from empty to whole; nearly adds up",
    "leave_one_out": "replaces each token in turn and looks what the output loses; does not add up",
    "leave_one_out_delete": "deletes each token in turn and looks what the output loses; does not add up",
    "sequential_decompx": "takes away one token at a time and asks decompx again after each",
    "attention": "shows the attention weights themselves: where the classifying position looks, without a sign",
    "rollout": "follows attention through all layers by multiplying the weights, without a sign",
    "effective_attention": "shows the part of the attention weights that can change the output",
    "random": "explains nothing: random scores, as a control",
}

MAPS = {
    "raw": ("attention", "the weights as the model computes them"),
    "effective": (
        "effective attention",
        "what is left of the weights after taking away the part that cannot change the head's output; it may be "
        "negative",
    ),
    "max_entropy": ("most even", "the most even weights that give the same output"),
    "witness": ("witness", "weights as far from the model's own as we could find that still give the same output"),
}
"""Of an attention map: what it is called and what it is."""

SAME_OUTPUT = "“The same output” means: this head hands on exactly the same vector, so nothing behind it can notice."

AUDITS = {
    "erasure": "Does attention at this place drive the decision, and do its largest weights matter most? Words are "
    "erased from the attention and we look what the decision does.",
    "erasure_heads": "In which attention heads does the most attended word matter most?",
    "identifiability": "Could these attention weights have been others, with the same output?",
    "information": "Where can the decision be read from the hidden states, and does attention go there? In nats: "
    "0.69 nats is one yes-or-no question answered.",
    "token_identity": "Is the hidden state at a token's place still about that token?",
    "mixing": "How much of a hidden state comes from its own token, and from how far does the rest come?",
    "comparison": "Which explanation method finds the tokens that the decision hangs on? Tokens are erased in the "
    "order of each method; AOPC is how much of the decision's probability is lost on average: more is better.",
    "words": "Which words push the decision over many texts, and in which direction?",
    "calibration": "When the model says 90 %, is it right in 90 % of the cases?",
}
"""Of an audit: what it asks."""

FIGURES = (
    ("erasure", "flips"),
    ("identifiability", "freedom"),
    ("calibration", "*"),
    ("information", "layers"),
    ("erasure", "delta"),
    ("mixing", "layers"),
    ("identifiability", "correlation"),
    ("erasure_heads", "heads"),
    ("token_identity", "layers"),
    ("erasure", "two_by_two"),
    ("words", "*"),
    ("comparison", "*"),
)
"""Audit and picture, the most telling first; * is every picture of the audit. The last two have tables
with the same numbers."""

CAPTIONS = {
    ("erasure", "flips"): "How many decisions have flipped when a share of the words has been erased, most attended "
    "first, against other orders. An order that explains the decision flips it early.",
    ("erasure", "delta"): "What erasing the most attended word does, against erasing a random other one.",
    ("erasure", "two_by_two"): "Whether the most attended word alone flips the decision, against a random other one.",
    ("identifiability", "freedom"): "How far attention could move with the same output, by the length of the text. "
    "Above the head's width it is no longer unique.",
    ("identifiability", "correlation"): "How alike attention and effective attention (its part that can change the "
    "output) are.",
    ("erasure_heads", "heads"): "How often the most attended word is the one that matters most, head by head.",
    ("information", "layers"): "How much of the decision can be read from a single hidden state, layer by layer.",
    ("token_identity", "layers"): "How many hidden states can still be traced to their own token, layer by layer.",
    ("mixing", "layers"): "How much of a hidden state still comes from its own token, layer by layer.",
    ("calibration", "reliability"): "Whether the model is as often right as its confidence says.",
    ("calibration", "errors"): "What differs between errors and correct predictions.",
    ("words", "*"): "The words that push a class most.",
    ("comparison", "*"): "How much of the decision's probability is lost when the first tokens of each method "
    "are erased. More is better; random is the control.",
}

WRITTEN = "Scores tell what this model computed for this text. They do not tell whether it is right to decide so."
