"""A page to try a bundle on: images, a slider for each threshold, what is kept and what it costs (Gradio, the extra `demo`)."""
