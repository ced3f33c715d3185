"""Which of a bundle's graphs a device runs."""

from __future__ import annotations

from collections.abc import Sequence

from edgegen.bundle import Bundle
from edgegen.devices import Device
from edgegen.devices.device import Limits
from edgegen.errors import BundleError
from edgegen.manifest import Variant, held_as


def choose_variant(
    bundle: Bundle,
    component: str,
    device: Device,
    precision: str | None = None,
    *,
    static: bool = False,
) -> Variant:
    """The variant of a component this device takes: the smallest weights, then the cache it likes
    best. Of static variants, which ``static`` or the device asks for, one of many sizes."""
    order = ("int4", "int8", "qdq", "bf16", "fp16", "fp32")
    limits, found = device.limits, bundle.component(component).variants
    static = static or limits.static_shapes
    taken = [one for one in found if limits.takes(one) and one.static == static]
    fits = [one for one in taken if precision in (None, one.precision.weight_format)]
    if not fits:
        other = instead(component, precision)
        fits = [one for one in taken if one.precision.weight_format == other]
    if not fits:
        has = ", ".join(dict.fromkeys(described(variant) for variant in found))
        asked = f" in {precision}" if precision else ""
        raise BundleError(
            f"{bundle.path}: {device.name} runs none of the variants of {component}{asked}; "
            f"the bundle has {has}. {way_out(limits, found, taken, precision, static)}."
        )
    return min(
        fits,
        key=lambda variant: (
            order.index(variant.precision.weight_format),
            limits.caches.index(variant.cache.kind),
            len(variant.graph.outputs),
        ),
    )


def way_out(
    limits: Limits,
    found: Sequence[Variant],
    taken: Sequence[Variant],
    precision: str | None,
    static: bool,
) -> str:
    """What gives a variant that runs: of those ``found`` the device takes ``taken``, all in other
    precisions."""
    if taken:
        here = " or ".join(dict.fromkeys(one.precision.weight_format for one in taken))
        if precision not in limits.weight_formats:
            return f"Ask for {here}"
        return f"Ask for {here}, or export with --weight-format {precision}"
    options = f"--format {limits.formats[0]}" + " --static" * static
    return f"Export with {options}" + ("" if static else other_cache(limits, found))


def instead(component: str, precision: str | None) -> str | None:
    """What a part is in where it is never in the precision asked for."""
    if component == "encode" and precision == "int4":  # integer encoders have 8 bits
        return "int8"
    if component == "features" and precision not in (None, "fp32"):
        return "fp32"
    return None


def other_cache(limits: Limits, variants: Sequence[Variant]) -> str:
    """The option that adds a cache the device takes to those there are, where none is."""
    kinds = [one.cache.kind for one in variants if one.format in limits.formats and not one.static]
    if not kinds or any(kind in limits.caches for kind in kinds):
        return ""
    return f" --cache {','.join(dict.fromkeys([*kinds, limits.caches[0]]))}"


def described(variant: Variant) -> str:
    return f"{variant.format} {held_as(variant.precision)}" + " static" * variant.static


def sizes_of(bundle: Bundle, component: str, chosen: Variant) -> list[Variant]:
    """The static variants that are ``chosen`` in other sizes."""
    return [
        one
        for one in bundle.component(component).variants
        if one.static
        and (one.format, one.precision, one.cache, one.graph, one.lowering)
        == (chosen.format, chosen.precision, chosen.cache, chosen.graph, chosen.lowering)
    ]


def tapped_variants(bundle: Bundle, plain: Variant | None) -> dict[str, Variant]:
    """The variants of ``decode`` that are ``plain`` with one more output: ``decode+OUTPUT``."""
    if plain is None:
        return {}
    found: dict[str, Variant] = {}
    outputs = {port.name for port in plain.graph.outputs}
    for variant in bundle.component("decode").variants:
        extra = {port.name for port in variant.graph.outputs} ^ outputs
        same = variant.format == plain.format and variant.cache == plain.cache
        same = same and variant.buckets == plain.buckets
        if len(extra) == 1 and same and variant.precision == plain.precision:
            found[f"decode+{min(extra)}"] = variant
    return found
