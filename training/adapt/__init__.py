"""Token pass for a frozen segmenter: lenses and decision heads fitted to its own output, or the heads to labels."""
