"""medjax: training and applying networks that make medical images better, in JAX."""
