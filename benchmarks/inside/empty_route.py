"""The service's framework with a route that does nothing: `empty_route.py --port 8000`."""

import sys

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.post("/predict")
async def predict() -> dict[str, int]:
    return {"answer": 1}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", loop="uvloop", http="httptools")
