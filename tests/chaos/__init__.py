"""Whatever dies, is cut off or comes twice: the work goes on and the state comes right by itself."""
