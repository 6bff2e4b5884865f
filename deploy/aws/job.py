"""The program of a job of Glue or EMR Serverless, where the package is installed."""

from stedi_assets.job import main

main()
