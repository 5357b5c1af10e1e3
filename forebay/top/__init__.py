"""The console in a terminal: what the administration's endpoints tell, second by second."""
