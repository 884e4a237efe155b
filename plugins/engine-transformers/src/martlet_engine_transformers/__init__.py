"""Text generation with transformers: batched, streaming, with LoRA adapters, and on a live model."""
