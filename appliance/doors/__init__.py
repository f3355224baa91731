"""Answers what testboxes, clients and monitors ask for."""
