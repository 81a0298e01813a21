"""What goes beyond the plans: means of the weights of runs, and a second backbone."""
