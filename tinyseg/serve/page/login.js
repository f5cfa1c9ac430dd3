// Trades the token for a cookie that scripts cannot read.
const form = document.querySelector("#login");
const message = document.querySelector("#message");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  message.textContent = "";
  try {
    const token = form.querySelector("#token").value;
    const body = JSON.stringify({ token });
    const answer = await fetch("/api/login", { method: "POST", headers: { "content-type": "application/json" }, body });
    if (answer.ok) {
      location.replace("/");
      return;
    }
    message.textContent = (await answer.json()).error;
  } catch {
    message.textContent = "The server does not answer.";
  }
});
