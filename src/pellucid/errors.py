"""One class per kind of refusal. Every message says what was asked, what was seen, and what to do next."""


class PellucidError(Exception):
    """Base of every refusal; its text is written to be shown to a person as it stands."""


class InputError(PellucidError, ValueError):
    """The texts, targets, options or files that were given cannot be used."""


class Unanswerable(InputError):
    """The question of an audit cannot be asked of this model or these texts; those of other audits can."""


class UnsupportedModel(PellucidError, ValueError):
    """The model's architecture, configuration or storage is one that Pellucid cannot rebuild."""


class ParityError(PellucidError, RuntimeError):
    """Our network and the model's own forward disagree on the probe batch."""


class ModelChanged(PellucidError, RuntimeError):
    """The weights are no longer those that `load` checked."""


class AccessError(PellucidError, ValueError):
    """The method needs to see more of the model than this model shows."""


class MissingExtra(PellucidError, ImportError):
    """An optional dependency is not installed."""
