"""What testboxes, clients and monitors ask for."""
