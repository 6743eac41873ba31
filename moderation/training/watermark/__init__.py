"""The watermark detector's training: marks, and what is mistaken for them, drawn and pasted on photographs."""
