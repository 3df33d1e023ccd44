# Training: docs/serve.md says how to build and run it.
FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 user && install -d -o user -g user /project
WORKDIR /project
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY --chown=user:user . .
USER 1000
ENTRYPOINT ["python", "train.py"]
CMD ["-c", "config.json"]
