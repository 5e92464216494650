"""What is known of a data set: its profile, how it is measured, and `synthaug fit`."""

from synthaug.profile.profile import Profile, find_profile

__all__ = ["Profile", "find_profile"]
