"""Tables and figures. They read results and train nothing."""
