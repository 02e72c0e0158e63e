"""Small helpers that know nothing about recommenders."""
