"""The base of all wire shapes."""

from __future__ import annotations

from threading import RLock

from pydantic import BaseModel, ConfigDict

__all__ = ["Model"]

_BUILDING = RLock()


class Model(BaseModel):
    """A wire shape that pydantic builds at its first use: a cold start waits for none that it does not need."""

    model_config = ConfigDict(defer_build=True)

    @classmethod
    def model_rebuild(cls, *, force: bool = False, raise_errors: bool = True, **_: object) -> bool | None:
        """Builds the model, unless another thread has by now; pydantic's own way lets several build it at once.

        Until then they would validate by the base's empty schema. Its names are those of its module.
        """
        with _BUILDING:
            return super().model_rebuild(force=force, raise_errors=raise_errors, _types_namespace={})
