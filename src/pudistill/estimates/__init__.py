"""Estimates from few verified samples and predictions for all: shares with intervals that hold."""
