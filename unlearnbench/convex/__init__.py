"""Convex models: objective, Newton's method, exact deletion, random features."""
