"""One tree of errors. Every error that a user can cause is a `GraphcError` that names the place, the reason and the next step."""

from __future__ import annotations


class GraphcError(Exception):
    """Base of every error that graphc raises on purpose.

    `where` names the node, file or line; `hint` is the next step for the user.
    """

    def __init__(self, reason: str, *, where: str = "", hint: str = "") -> None:
        self.reason = reason
        self.where = where
        self.hint = hint
        super().__init__(reason)

    def __str__(self) -> str:
        text = f"{self.where}: {self.reason}" if self.where else self.reason
        return f"{text}. Try: {self.hint}" if self.hint else text

    def at(self, where: str) -> GraphcError:
        """Fill in the place where it is still unknown; returns self, to be raised again."""
        if not self.where:
            self.where = where
        return self


class ModelError(GraphcError):
    """The model file or graph is broken: truncated, cyclic, a value undefined or defined twice."""


class UnsupportedError(GraphcError):
    """Valid, but graphc does not support it (yet)."""


class TypeMismatchError(GraphcError):
    """A dtype that the op does not take."""


class ShapeError(GraphcError):
    """Shapes that do not fit together, or that cannot be known before running."""


class DynamicShapeError(ShapeError):
    """A shape depends on graph inputs. `inputs` names them; `wants`: what of them must be given, their "values", or their "shapes"."""

    def __init__(self, reason: str, *, inputs: tuple[str, ...] = (), where: str = "", hint: str = "", wants: str = "values") -> None:
        super().__init__(reason, where=where, hint=hint)
        self.inputs = inputs
        self.wants = wants


class InputError(GraphcError):
    """What was passed to a compiled model does not fit its signature."""


class AttributeValueError(GraphcError):
    """An attribute of an op has a value that makes no sense."""


class NumericalError(GraphcError):
    """A loss or gradient is NaN or infinite, or the norm of the gradients is."""


class VerifyError(GraphcError):
    """An invariant of the graph or plan does not hold: a bug in graphc or in a third-party pass."""


class ResourceError(GraphcError):
    """A stated limit (memory, time, size) would be exceeded."""


class BackendError(GraphcError):
    """A back end is unknown, unavailable on this machine, or failed."""
