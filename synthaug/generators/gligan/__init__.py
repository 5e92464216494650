"""Generators that run the released GliGAN weights as they were trained."""
