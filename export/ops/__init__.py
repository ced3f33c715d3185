"""The operation set and its bodies: torch, ONNX plain, ONNX fused."""
