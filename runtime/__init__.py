"""The device side of generation: options, samplers, filters, verifiers, drafters and the loop."""
