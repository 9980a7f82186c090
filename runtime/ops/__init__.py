"""Forward and backward rules of ONNX operators in numpy, for training: one row per operator."""
