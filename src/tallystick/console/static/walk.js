// Presses the button of a walk through a destination, step after step, and gathers what the steps found. Without it the reader does.

export async function walk(form, announce) {
  const page = document.getElementById("walk");
  let next = form;
  while (next && page.isConnected) {
    const answer = await fetch(next.action, { method: "POST", body: new URLSearchParams(new FormData(next)), headers: { accept: "text/html" } });
    if (!answer.ok) return announce(`The server answered ${answer.status}; press the button to go on from here.`);
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("walk");
    const findings = parsed.querySelector("#findings");
    findings.prepend(...page.querySelectorAll("#findings > tr"));
    if (findings.children.length) findings.closest("section").querySelector(":scope > p")?.remove();
    page.replaceChildren(...document.importNode(parsed, true).childNodes);
    next = page.querySelector("form[data-walk]");
  }
}
