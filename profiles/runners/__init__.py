"""Engines of a sweep: where its trials run. One file each, one line here."""

from __future__ import annotations

from edgegen.registry import Registry

from .base import Failed, Measured, Runner

RUNNERS: Registry[type[Runner]] = Registry(
    "engine",
    {
        "local": "edgegen.profiles.runners.local:Local",
        "ray": "edgegen.profiles.runners.ray_cluster:RayCluster",
    },
)

__all__ = ["RUNNERS", "Failed", "Measured", "Runner"]
