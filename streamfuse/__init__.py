"""StreamFuse aligns live video, sound and text by event time, and runs a fusion model on the aligned windows."""
