"""The fault campaign: real applications with wild daemons, hit at random, and nothing may stay."""
