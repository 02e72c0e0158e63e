"""AFM: tables and layers made low-rank by what they give out."""
