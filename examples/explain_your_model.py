"""Explain your own classifier: three ways in, one page out.

    python examples/explain_your_model.py [FOLDER_OR_HUB_NAME]

Without an argument it uses the bundled demo model.
"""

import sys

import pellucid
from pellucid.methods import DecompX

TEXTS = [
    "The ending is funny.",
    "The ending is not funny.",
    "It is not perfect, but it is warm, honest and very funny.",
]


def main(name: str) -> None:
    """Explain three sentences in three ways and write them as records."""
    model = pellucid.load(name)
    print(model)

    # 1. why this class: the predicted label's logit, token by token
    found = pellucid.explain(model, TEXTS)
    for a in found:
        a.show()

    # 2. why this class and not that one: a contrast of two logits
    first, second = model.labels[:2]
    contrast = pellucid.explain(model, TEXTS[1], target=(second, first))
    print({t.text: round(float(s), 2) for t, s in zip(contrast.tokens, contrast.scores, strict=True)})

    # 3. the paper's own rule for biases, which costs about n forward passes instead of one backward pass
    slow = pellucid.explain(model, TEXTS[1], method=DecompX(bias="absdot"))
    print(f"gap of absdot: {slow.gap:.1e}")

    pellucid.write_records(found, "explained.parquet")
    print("wrote explained.parquet")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(pellucid.DEMO))
