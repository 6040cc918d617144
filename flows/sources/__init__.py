"""Where candidates come from: files of many formats, stores of results, and generators that make new ones."""
