"""A campaign that learns: choose candidates for first-principles calculations, fine-tune on them, and screen again."""
