"""What compress.py and reproduce.py do, one file a subject: glue between trainings, transforms and pages."""
