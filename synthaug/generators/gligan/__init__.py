"""GliGAN: the released generators, as they were trained."""
