# python:slim and not apache/airflow: the image then holds exactly the versions of constraints.txt, with
# which the tests run. The Airflow image brings some thirty providers with versions of their own, which the
# same constraints would pull from under them.
# The package is installed, not mounted: only an installed distribution gives Airflow the configuration
# section. Its plugin comes by entry point, so there is no plugins folder.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
# Dependencies first, in a layer that a change of the code leaves alone. constraints.txt has no
# PostgreSQL driver, since the tests run on SQLite: Airflow wants one that is sync and one that is async.
COPY constraints.txt ./
RUN pip install -c constraints.txt \
    "apache-airflow" \
    "apache-airflow-providers-amazon[aiobotocore]" \
    "psycopg2-binary==2.9.13" \
    "asyncpg==0.32.0"
COPY pyproject.toml README.md LICENSE ./
COPY plugins ./plugins
RUN pip install -c constraints.txt . \
    && pip check \
    && find /opt/venv -name __pycache__ -prune -exec rm -r {} + \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM ${PYTHON_IMAGE}
# Without bytecode every start of Airflow takes twice as long, and this user could not write it.
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AIRFLOW_HOME=/opt/airflow
# A new named volume takes the owner of the directory that it is mounted on first.
RUN useradd --uid 50000 --gid 0 --no-create-home --home-dir /opt/airflow --shell /usr/sbin/nologin airflow \
    && install -d -o airflow -g 0 -m 0750 /opt/airflow /opt/airflow/logs /opt/airflow/auth \
        /opt/airflow/demo-events /data
COPY --chown=50000:0 dags /opt/airflow/dags
RUN python -m compileall -q /opt/airflow/dags
USER 50000:0
WORKDIR /opt/airflow
CMD ["airflow", "version"]
