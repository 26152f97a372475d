"""One run of the benchmark: from pairs and variants to rows, a summary and pictures on disk."""
