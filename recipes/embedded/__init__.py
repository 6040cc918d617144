"""How the embedded checkpoints were made."""
