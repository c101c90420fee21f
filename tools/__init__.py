"""Programs for those who change the code: measures and checks."""
