"""Token pass for a frozen segmenter: lenses and decision heads fitted to its own output on unlabelled images."""
