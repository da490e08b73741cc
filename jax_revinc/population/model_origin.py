"""The origin of a population's models, recorded in their files: the training config and engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revinc.json_records import SECTIONS, config_digest


@dataclass(frozen=True)
class Origin:
    """The training config and the engine that all models of a population share.

    Shards record it, so that a shard of another population is recognised. The config's sections
    stay as they are on disk, so that a field of a later version does not change the digest.

    Attributes:
        sections: the config's fields, by section.
        engine: the engine's name, version and width, by those words.
    """

    sections: Mapping[str, Mapping[str, Any]]
    engine: Mapping[str, str]

    @classmethod
    def of(cls, record: Mapping[str, Any], engine: Mapping[str, str]) -> Origin:
        """Make an origin from the config sections of `record`, whose other keys are ignored."""
        return cls({name: record[name] for name in SECTIONS}, engine)

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Origin | None:
        """Get the origin from a file's metadata; None if an earlier version recorded no origin."""
        sections, engine = record.get("config"), record.get("engine")
        if not isinstance(sections, dict) or not isinstance(engine, dict):
            return None
        is_whole = all(isinstance(sections.get(name), dict) for name in SECTIONS)
        return cls.of(sections, engine) if is_whole else None

    def to_record(self) -> dict[str, Any]:
        """The config, the engine and their hash, to be stored in the metadata of a file."""
        return {"recipe": self.digest, "config": self.sections, "engine": self.engine}

    @property
    def digest(self) -> str:
        """A hash of the origin, equal for equal origins."""
        return config_digest(self.sections, self.engine)

    def differences(self, other: Origin) -> list[str]:
        """For every field in which `other` differs, a phrase like ``steps: 20 there, not 21``."""
        here = {**self.sections, "engine": self.engine}
        there = {**other.sections, "engine": other.engine}
        return [
            f"{field}: {there[section].get(field)} there, not {here[section].get(field)}"
            for section in here
            for field in {**here[section], **there[section]}
            if here[section].get(field) != there[section].get(field)
        ]
