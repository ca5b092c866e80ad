"""What a recipe needs of hardware and costs there, before it is rented: `tapeout plan`."""
