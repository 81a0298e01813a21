"""What goes beyond the study's first plan: means of weights of its runs, a second backbone, the paper's base loss."""
