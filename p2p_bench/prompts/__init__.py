"""Prompts as tokens: where the words are, and which columns of two prompts belong together."""
