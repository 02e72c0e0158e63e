"""One run in several processes under torchrun, with the same bits for any number of them."""
