"""The ten benchmarks: official files in, documents for the tasks out."""
