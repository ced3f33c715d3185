"""Graph formats: ONNX and OpenVINO."""
