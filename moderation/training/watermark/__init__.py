"""The watermark detector's training, on marks and look-alikes that are drawn and pasted on photographs."""
