"""What the made-up students hand in. These files are read as text; nothing imports them."""
