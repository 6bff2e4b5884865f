# The image of an application of EMR Serverless: AWS's own, of Spark 4, with the package beside it.
# From the project's folder: docker build -f deploy/aws/emr.Dockerfile -t stedi-emr .
# Its Spark is the only one: the lock file has none.

FROM public.ecr.aws/emr-serverless/spark/emr-spark-8.0.0:latest
USER root
RUN dnf install -y python3.13 && dnf clean all && python3.13 -m venv /opt/stedi
COPY deploy/aws/requirements.lock /opt/stedi/
RUN /opt/stedi/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
    -r /opt/stedi/requirements.lock
COPY setup.cfg pyproject.toml README.md /opt/stedi/src/
COPY stedi_assets /opt/stedi/src/stedi_assets
RUN /opt/stedi/bin/pip install --no-cache-dir --no-index --no-deps --no-build-isolation /opt/stedi/src
# Of the driver and of the workers, which read landing files.
ENV PYSPARK_PYTHON=/opt/stedi/bin/python \
    PYSPARK_DRIVER_PYTHON=/opt/stedi/bin/python
USER hadoop:hadoop
