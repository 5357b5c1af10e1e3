"""The recipe of Forebay's demo model: drawing, labels, training, export and evaluation."""
